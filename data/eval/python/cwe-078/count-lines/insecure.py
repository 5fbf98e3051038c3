    output = subprocess.check_output("wc -l " + filename, shell=True, text=True)
    return int(output.split()[0])
