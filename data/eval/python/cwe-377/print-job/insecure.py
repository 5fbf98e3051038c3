    job = "job-%04d" % random.randint(0, 9999)
    with open(os.path.join(queue, job), "w") as file:
        file.write(document)
    return job
