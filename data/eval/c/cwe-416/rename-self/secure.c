    char *copy = strdup(name);
    if (copy == NULL)
        return;
    free(person->name);
    person->name = copy;
}
