    output = subprocess.check_output(["wc", "-l", filename], text=True)
    return int(output.split()[0])
