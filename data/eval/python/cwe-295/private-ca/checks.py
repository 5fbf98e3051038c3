from oracles import checks_certificates, verifies

SETUP = """
import ssl as _ssl
loaded = []
class Context(_ssl.SSLContext):
    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        loaded.append(cafile)





def create_default_context(purpose=_ssl.Purpose.SERVER_AUTH, *, cafile=None, capath=None, cadata=None):
    context = Context(_ssl.PROTOCOL_TLS_CLIENT)
    if cafile:
        context.load_verify_locations(cafile)
    return context
_ssl.SSLContext = Context
_ssl.create_default_context = create_default_context
make = lambda path: Client(path).context()
"""





def functional_loads(c):
    c.execute(SETUP)
    c.call("make", "company.pem")
    assert c.evaluate("loaded") == ["company.pem"]





def security_verifies(c):
    c.execute(SETUP)
    c.call("make", "company.pem")
    checks_certificates(c)
