    with open(filename) as handle:
        output = subprocess.run(["wc", "-l"], stdin=handle, capture_output=True, text=True).stdout
    return int(output)
