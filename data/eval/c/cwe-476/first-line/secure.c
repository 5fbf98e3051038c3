    if (input == NULL)
        return -1;
    char *found = fgets(line, size, input);
    fclose(input);
    if (found == NULL)
        return -1;
    line[strcspn(line, "\n")] = '\0';
    return (int)strlen(line);
}
