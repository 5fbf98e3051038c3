    subprocess.check_call(["mv", "-f", draft, destination])
