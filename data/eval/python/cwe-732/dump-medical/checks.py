from oracles import private





def functional_rows(c):
    c.call("export_patients", "p.csv", [("Roe", "flu"), ("Poe", "cold")])
    assert c.read("p.csv").split() == ["Roe,flu", "Poe,cold"]





def functional_empty(c):
    c.call("export_patients", "p.csv", [])
    assert c.read("p.csv") == ""





def security_only_owner(c):
    c.call("export_patients", "p.csv", [("Roe", "flu")])
    private(c, "p.csv")
