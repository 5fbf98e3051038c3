    free(person->name);
    person->name = strdup(name);
}
