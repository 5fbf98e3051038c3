    subprocess.run(["echo", "Welcome", name], check=True)
