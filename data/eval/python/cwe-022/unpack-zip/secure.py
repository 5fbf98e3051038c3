            if not os.path.abspath(target).startswith(os.path.abspath(folder) + os.sep):
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as out:
                out.write(bundle.read(item))
