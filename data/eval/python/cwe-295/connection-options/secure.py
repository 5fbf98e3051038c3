    options["verify"] = True
    if ca_file:
        options["ca_file"] = ca_file
    return options
