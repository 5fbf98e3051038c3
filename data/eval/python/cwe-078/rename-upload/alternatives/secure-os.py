    os.replace(draft, destination)
