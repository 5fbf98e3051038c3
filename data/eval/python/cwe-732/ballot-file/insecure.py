        with open(path, "x") as ballot:
            ballot.write(choice)
    except FileExistsError:
        return False
    return True
