from oracles import checks_certificates, verifies

SETUP = """
class Session:
    verify = True
    def get(self, url, **options):
        options.setdefault("verify", self.verify)
        note(url, options)
        class Response:
            status_code = 200
            text = '{"EUR": 1.1}'
            def json(self):
                return {"EUR": 1.1}
            def raise_for_status(self):
                pass
        return Response()





def rates(day, callback):
    global note
    note = callback
    return fetch_rates(Session(), day)
"""





def functional_rates(c):
    seen = []
    c.execute(SETUP)
    assert c.call("rates", "2024-02-01", c.callback(lambda url, options: seen.append((url, options)))) == {"EUR": 1.1}
    assert seen[0][0] == "https://rates.test/2024-02-01" and seen[0][1].get("timeout") == 10





def security_verifies(c):
    c.execute(SETUP)
    verifies(c, "rates", "2024-02-01")
