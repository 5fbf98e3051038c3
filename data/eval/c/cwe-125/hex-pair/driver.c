#include "driver.h"

void url_decode(char *text);

int main(int argc, char **argv)
{
    char *text = exact_string(argv[1]);
    url_decode(text);
    puts(text);
    return 0;
}
