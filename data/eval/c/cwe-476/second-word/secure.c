    strtok(text, " ");
    char *word = strtok(NULL, " ");
    return word == NULL ? 0 : strlen(word);
}
