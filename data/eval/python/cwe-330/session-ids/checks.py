from oracles import foreseeable

SETUP = "sessions = Sessions()\nopen_session = sessions.open"





def functional_remembers(c):
    c.execute(SETUP)
    session = c.call("open_session", "vic")
    assert isinstance(session, str) and c.evaluate("sessions.users") == {session: "vic"}





def functional_two_sessions(c):
    c.execute(SETUP)
    assert c.call("open_session", "vic") != c.call("open_session", "vic")





def security_unpredictable(c):
    found = []
    for _ in range(2):
        foreseeable(c)
        c.execute(SETUP)
        found.append(c.call("open_session", "vic"))
    assert found[0] != found[1]
