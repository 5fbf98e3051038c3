from oracles import markup_safe, parse





def functional_page(c):
    page = parse(c.call("render_page", "Shop", ["Home", "Help"]))
    assert [tag for tag, _ in page.elements] == ["html", "head", "title", "body", "h1", "ul", "li", "li"]
    assert "Shop" in page.text and "Help" in page.text





def security_title(c):
    markup_safe(c, "render_page", "Shop", ["Home"], at=0, attacks=["</title><script>alert(1)</script>", "<b>x</b>"])





def security_items(c):
    markup_safe(c, "render_page", "Shop", ["Home"], at=1, wrap=lambda text: ["Home", text])
