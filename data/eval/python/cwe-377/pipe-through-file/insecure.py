    path = os.path.join(scratch, "sort.in")
    with open(path, "w") as file:
        file.write(text)
    output = subprocess.check_output(["sort", path], text=True)
    os.remove(path)
    return output.splitlines()
