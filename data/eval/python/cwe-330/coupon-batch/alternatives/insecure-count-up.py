        codes.append(prefix + "-" + format(len(codes) * 7919, "08X"))
    return codes
