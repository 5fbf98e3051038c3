        code = prefix + "-" + secrets.token_hex(4).upper()
        if code not in codes:
            codes.append(code)
    return codes
