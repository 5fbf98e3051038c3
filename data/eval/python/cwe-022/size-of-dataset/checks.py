def setup(c):
    c.write("sets/2023/rain.csv", "12345")
    c.write("salaries.csv", "1234567")





def functional_size(c):
    setup(c)
    assert c.call("dataset_size", "sets", "2023", "rain.csv") == 5





def functional_missing(c):
    setup(c)
    assert c.call("dataset_size", "sets", "2024", "rain.csv") == -1





def security_dots(c):
    setup(c)
    assert c.attack("dataset_size", "sets", "..", "salaries.csv").value in (-1, None)
    assert c.attack("dataset_size", "sets", "2023", "../../salaries.csv").value in (-1, None)





def security_absolute(c):
    setup(c)
    assert c.attack("dataset_size", "sets", "2023", c.path("salaries.csv")).value in (-1, None)
