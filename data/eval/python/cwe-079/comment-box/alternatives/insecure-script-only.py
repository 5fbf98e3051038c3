    text = text.replace("<script>", "").replace("</script>", "")
    author = author.replace("<script>", "").replace("</script>", "")
    return f'<div class="comment"><b>{author}</b><p>{text}</p></div>'
