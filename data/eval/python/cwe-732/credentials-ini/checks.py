from oracles import private

import configparser





def functional_readable_ini(c):
    c.call("write_credentials", "db.ini", "mysql", "app", "pa55")
    config = configparser.ConfigParser()
    config.read_string(c.read("db.ini"))
    assert dict(config["mysql"]) == {"user": "app", "password": "pa55"}





def security_only_owner(c):
    c.call("write_credentials", "db.ini", "mysql", "app", "pa55")
    private(c, "db.ini")
