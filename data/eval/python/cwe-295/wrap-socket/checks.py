from oracles import checks_certificates, verifies

SETUP = """
import ssl as _ssl
class Context(_ssl.SSLContext):
    def wrap_socket(self, sock, *args, **options):
        self.options_given = options
        return ("wrapped", sock)





def wrap(host):
    global given
    given = Context(_ssl.PROTOCOL_TLS_CLIENT)
    return encrypt("socket", host, given)
"""





def functional_wraps(c):
    c.execute(SETUP)
    assert c.call("wrap", "bank.test") == ["wrapped", "socket"]





def security_host_name(c):
    c.execute(SETUP)
    c.call("wrap", "bank.test")
    assert c.evaluate("given.options_given.get('server_hostname')") == "bank.test"





def security_verifies(c):
    c.execute(SETUP)
    c.call("wrap", "bank.test")
    checks_certificates(c, "given")
