    rows = []
    while True:
        rows.append(bytearray(100000000))
