    exec("import " + name + " as found")
    return locals()["found"]
