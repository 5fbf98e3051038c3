from oracles import checks_certificates, verifies

SETUP = """
import io
import ssl as _ssl
used = {}





def opener(url, data=None, timeout=None, context=None, **options):
    used.update(url=url, timeout=timeout)
    used["context"] = context or _ssl.create_default_context()
    return io.BytesIO(b'{"ok": true}')
load = lambda url: load_json(url, opener)
"""





def functional_loads(c):
    c.execute(SETUP)
    assert c.call("load", "https://cfg.test/a.json") == {"ok": True}
    assert c.evaluate("(used['url'], used['timeout'])") == ["https://cfg.test/a.json", 20]





def security_verifies(c):
    c.execute(SETUP)
    c.call("load", "https://cfg.test/a.json")
    checks_certificates(c, "used['context']")
