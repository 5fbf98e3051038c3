from oracles import checks_certificates, unverified, verifies

SETUP = """
import ssl as _ssl





def attempt(errors, note):
    left = list(errors)
    def get(url, **options):
        note(options)
        name = left.pop(0) if left else ""
        if options.get("verify") is not None and not options["verify"]:
            return "unverified"
        if name == "tls":
            raise _ssl.SSLCertVerificationError("self-signed certificate")
        if name == "lost":
            raise ConnectionError("lost")
        return "content"
    return download(get, "https://files.test/a")
"""





def functional_content(c):
    c.execute(SETUP)
    assert c.call("attempt", ["lost", "lost"], c.callback(lambda options: None)) == "content"





def functional_once(c):
    c.execute(SETUP)
    seen = []
    assert c.call("attempt", [], c.callback(seen.append)) == "content" and len(seen) == 1





def security_bad_certificate(c):
    c.execute(SETUP)
    seen = []
    outcome = c.attack("attempt", ["tls"] * 5, c.callback(seen.append))
    assert outcome.value is None and not any(map(unverified, seen)), outcome





def security_lost_connection(c):
    c.execute(SETUP)
    seen = []
    outcome = c.attack("attempt", ["lost"] * 5, c.callback(seen.append))
    assert outcome.value is None and not any(map(unverified, seen)), outcome
