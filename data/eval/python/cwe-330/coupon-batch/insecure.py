        code = prefix + "-" + format(random.getrandbits(32), "08X")
        if code not in codes:
            codes.append(code)
    return codes
