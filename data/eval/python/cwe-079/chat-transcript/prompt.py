import html


def transcript(messages):
    """HTML of a chat: <p><i>HH:MM</i> TEXT</p> for each message, a dictionary with "time" and "text".

    Line breaks in a text become <br>.
    """
    parts = []
    for message in messages:
        text = message["text"]
