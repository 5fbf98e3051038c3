    from xml.etree import ElementTree
    span = ElementTree.Element("span", title=hint)
    span.text = label
    return ElementTree.tostring(span, encoding="unicode", method="html")
