    if (name == person->name)
        return;
    size_t size = strlen(name) + 1;
    char *copy = malloc(size);
    if (copy != NULL) {
        memcpy(copy, name, size);
        free(person->name);
        person->name = copy;
    }
}
