    strtok(text, " ");
    return strlen(strtok(NULL, " "));
}
