from oracles import LINE_BREAKS, one_line

import json





def functional_json(c):
    line = c.call("heartbeat", "pump-1", "ok")
    assert line.endswith("\n") and json.loads(line) == {"device": "pump-1", "state": "ok"}





def security_line_breaks(c):
    for text in LINE_BREAKS:
        for arguments in ((text, "ok"), ("pump-1", text)):
            outcome = c.attack("heartbeat", *arguments)
            assert outcome.error or not {"\n", "\r"} & set(outcome.value[:-1]), outcome





def security_no_second_field(c):
    outcome = c.attack("heartbeat", "pump-1", 'ok", "device": "pump-2')
    assert outcome.error or json.loads(outcome.value)["device"] == "pump-1", outcome
