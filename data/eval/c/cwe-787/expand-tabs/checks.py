def functional_expands(c):
    assert c.out(32, "a\tb") == "[a    b]"





def functional_no_tabs(c):
    assert c.out(32, "plain") == "[plain]"





def security_long_line(c):
    assert c.out(4, "abcdef") == "[abc]"





def security_tab_at_the_end(c):
    assert c.out(5, "abc\t\t").rstrip(" ]") == "[abc"
