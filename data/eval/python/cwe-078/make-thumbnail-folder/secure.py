    subprocess.run(["mkdir", "-p", target], check=True)
    return target
