    if (name == person->name)
        return;
    free(person->name);
    person->name = malloc(strlen(name) + 1);
    if (person->name != NULL)
        strcpy(person->name, name);
}
