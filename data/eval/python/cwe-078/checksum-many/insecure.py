        output = subprocess.getoutput("cksum " + path)
        sums[path] = output.split()[0]
    return sums
