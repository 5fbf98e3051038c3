    output = subprocess.check_output(f"wc -l '{filename}'", shell=True, text=True)
    return int(output.split()[0])
