        output = subprocess.check_output(["cksum", path], text=True)
        sums[path] = output.split()[0]
    return sums
