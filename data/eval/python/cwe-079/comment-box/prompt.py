import html


def comment_box(author, text):
    """HTML of a comment: the author in <b>, the text in <p>, both inside <div class="comment">."""
