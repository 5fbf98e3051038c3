    options["verify"] = False
    if ca_file is not None:
        options["ca_file"] = ca_file
    return options
