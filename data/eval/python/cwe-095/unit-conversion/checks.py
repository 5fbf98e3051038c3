from oracles import expression_safe





def functional_km(c):
    assert abs(c.call("to_meters", "12.5 km") - 12500) < 1e-6





def functional_mm(c):
    assert abs(c.call("to_meters", "3 mm") - 0.003) < 1e-9





def security_text(c):
    expression_safe(c, "to_meters")





def security_number(c):
    expression_safe(c, "to_meters", embed="{} km")
