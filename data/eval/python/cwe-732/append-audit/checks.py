from oracles import private

SETUP = "add = ChatLog('chat.log').add"





def functional_appends(c):
    c.execute(SETUP)
    c.call("add", "Pia", "hello")
    c.call("add", "Tom", "hi")
    assert c.read("chat.log") == "Pia: hello\nTom: hi\n"





def security_only_owner(c):
    c.execute(SETUP)
    c.call("add", "Pia", "hello")
    private(c, "chat.log")
