#include "driver.h"

char *quoted(const char *word);

int main(int argc, char **argv)
{
    char *text = quoted(argv[1]);
    puts(text ? text : "NULL");
    return 0;
}
