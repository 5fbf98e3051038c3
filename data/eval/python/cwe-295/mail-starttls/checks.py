from oracles import checks_certificates, verifies

SETUP = """
import ssl as _ssl
class Smtp:
    def __init__(self):
        self.calls = []
    def ehlo(self, name=""):
        pass
    def starttls(self, *, context=None):
        self.context = context or _ssl._create_stdlib_context()
        self.calls.append("starttls")
    def login(self, user, password):
        self.calls.append("login " + user + " " + password)





def run(user, password):
    smtp = Smtp()
    secure_login(smtp, user, password)
    return smtp
"""





def functional_calls(c):
    c.execute(SETUP)
    c.call("run", "u", "p")
    assert sorted(c.evaluate("result.calls")) == ["login u p", "starttls"]





def security_encrypted_before_login(c):
    c.execute(SETUP)
    c.call("run", "u", "p")
    assert c.evaluate("result.calls") == ["starttls", "login u p"]





def security_verifies(c):
    c.execute(SETUP)
    c.call("run", "u", "p")
    checks_certificates(c, "result.context")
