from oracles import LINE_BREAKS, one_line

SETUP = """





def attempt(text, logger, fail=9):
    left = [fail]
    def job():
        left[0] -= 1
        if left[0] >= 0:
            raise ValueError(text)
        return 'value'
    return with_retries(job, 'sync', logger)
"""
LOG = {"$logger": "jobs.log"}





def functional_fails(c):
    c.execute(SETUP)
    assert c.call("attempt", "no route", LOG) is None
    assert c.lines("jobs.log") == ["ERROR sync: no route"] * 3





def functional_succeeds(c):
    c.execute(SETUP)
    assert c.call("attempt", "no route", LOG, 1) == "value"
    assert c.lines("jobs.log") == ["ERROR sync: no route"]





def security_exception_text(c):
    c.execute(SETUP)
    one_line(c, "jobs.log", lambda text: c.attack("attempt", text, LOG, 1))
