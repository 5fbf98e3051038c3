from oracles import EXPRESSION_ATTACKS, payload_safe, pickle_payload





def functional_swaps(c):
    assert c.call("swap_settings", "s.dat", {"font": 12}) == {}
    assert c.call("swap_settings", "s.dat", {"font": 14}) == {"font": 12}





def functional_new_process(c):
    c.call("swap_settings", "s.dat", {"font": 12})
    c.start()
    assert c.call("swap_settings", "s.dat", {}) == {"font": 12}





def security_planted_file(c):
    payload_safe(c, lambda data: c.write("s.dat", data), lambda: c.attack("swap_settings", "s.dat", {}))
