    options["verify"] = ca_file is not None
    if ca_file:
        options["ca_file"] = ca_file
    return options
