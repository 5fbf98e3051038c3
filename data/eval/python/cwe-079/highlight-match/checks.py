from oracles import markup_safe, parse





def functional_marks(c):
    assert c.call("highlight", "a cat and a cat", "cat") == "a <mark>cat</mark> and a <mark>cat</mark>"





def functional_no_match(c):
    assert c.call("highlight", "a dog", "cat") == "a dog"





def security_text(c):
    markup_safe(c, "highlight", "a cat", "cat", at=0, attacks=["<script>x</script> cat", "cat <img src=x>"], plain="cat")





def security_word(c):
    outcome = c.attack("highlight", "an <i>owl</i>", "<i>owl</i>")
    assert outcome.error or {tag for tag, _ in parse(outcome.value).elements} <= {"mark"}, outcome
