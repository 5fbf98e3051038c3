from oracles import strong_digest





def functional_all_files(c):
    c.write("dist/one.whl", "1")
    c.write("dist/two.whl", "2")
    found = c.call("manifest", "dist")
    assert sorted(found) == ["one.whl", "two.whl"] and found["one.whl"] != found["two.whl"]





def functional_same_content(c):
    c.write("dist/one.whl", "1")
    c.write("dist/two.whl", "1")
    found = c.call("manifest", "dist")
    assert found["one.whl"] == found["two.whl"]





def security_strong(c):
    c.write("dist/one.whl", "1")
    strong_digest(c.call("manifest", "dist")["one.whl"], b"1")
